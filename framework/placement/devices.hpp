// Which device a rank computes on.
#pragma once
#include <attune/mesh.hpp>
#include <c10/core/Device.h>

#include <string>
#include <vector>

namespace attune::placement {

/// One rank's accelerator, as the other ranks need to know it.
struct Seat {
  std::string host;
  std::string kind;   // "cuda"; "cpu" for a rank that computes without an accelerator
  int index = 0;      // among those that the rank sees
  int visible = 0;    // number of accelerators that the rank sees
  std::string uuid;   // empty if unknown
  std::string model;  // "NVIDIA H200"; empty if unknown

  std::string text() const;
  static Seat parse(const std::string& text);
  std::string device() const;  // "cuda:1"
};

/// What is wrong with these seats, by rank: ranks of different kinds, or several on one device. One
/// sentence; empty if nothing is.
std::string objection(const std::vector<Seat>& seats);

/// Whether the devices are of different models.
bool differ(const std::vector<Seat>& seats);

/// Names the different models, and the slowest rank. rates: of computing, by rank. One sentence.
std::string difference(const std::vector<Seat>& seats, const std::vector<double>& rates);

/// The device of this rank: the CPU, or the accelerator whose index is the rank's number on its
/// node, modulo the number of those it sees. That serves a task that sees all accelerators of its
/// node as well as one that sees its own alone.
/// wanted: "auto" (an accelerator if there is one), or a kind (device::kinds()). Errors: there is
/// no such device, or objection(). Collective.
c10::Device choose_device(const std::string& wanted, const Mesh& mesh);

}  // namespace attune::placement
