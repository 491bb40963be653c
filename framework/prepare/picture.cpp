#include "prepare/picture.hpp"

#include <ATen/ops/empty.h>
#include <png.h>

#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>

namespace attune {
namespace {

constexpr std::uint64_t largest_picture = std::uint64_t{1} << 28;  // values

at::Tensor empty_picture(const Row& row, std::uint64_t height, std::uint64_t width,
                         std::uint64_t channels) {
  if (width == 0 || height == 0 || width > largest_picture / height / channels)
    bad_row(row, "an image that is too large",
            "claims to be {} x {} with {} channels, larger than any model's input; remove it",
            width, height, channels);
  return at::empty({static_cast<std::int64_t>(height), static_cast<std::int64_t>(width),
                    static_cast<std::int64_t>(channels)},
                   at::kByte);
}

at::Tensor decode_png(const Row& row, const std::string& bytes) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const auto check = [&](int done) {
    const std::string reason = image.message;
    if (done) return;
    png_image_free(&image);
    bad_row(row, "a damaged picture",
            "is not a complete PNG file ({}); fetch it again or remove it", reason);
  };
  check(png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()));
  image.format = image.format & PNG_FORMAT_FLAG_COLOR ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  at::Tensor pixels;
  try {
    pixels = empty_picture(row, image.height, image.width, PNG_IMAGE_PIXEL_CHANNELS(image.format));
  } catch (...) {
    png_image_free(&image);
    throw;
  }
  const png_color black{0, 0, 0};  // behind what is transparent
  check(png_image_finish_read(&image, &black, pixels.data_ptr(), 0, nullptr));
  return pixels;
}

/// libjpeg reports by calling back, and may not return.
struct JpegErrors {
  jpeg_error_mgr manager;
  std::jmp_buf back;
  char text[JMSG_LENGTH_MAX];
};

void leave(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->text);
  std::longjmp(errors->back, 1);
}

/// A file that was cut is only warned of; here it is an error.
void leave_at_warnings(j_common_ptr info, int level) {
  if (level < 0) leave(info);
}

/// What jumps may cross holds no object with a destructor.
struct JpegReader {
  jpeg_decompress_struct info{};
  JpegErrors errors{};
  JpegReader() {
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = leave;
    errors.manager.emit_message = leave_at_warnings;
    jpeg_create_decompress(&info);
  }
  ~JpegReader() { jpeg_destroy_decompress(&info); }

  bool begin(const std::string& bytes) {
    if (setjmp(errors.back)) return false;
    jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_read_header(&info, TRUE);
    info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_calc_output_dimensions(&info);
    return true;
  }
  bool read(std::uint8_t* to) {
    if (setjmp(errors.back)) return false;
    jpeg_start_decompress(&info);
    while (info.output_scanline < info.output_height) {
      JSAMPROW line = to + std::size_t{info.output_scanline} * info.output_width *
                               static_cast<std::size_t>(info.output_components);
      jpeg_read_scanlines(&info, &line, 1);
    }
    jpeg_finish_decompress(&info);
    return true;
  }
};

at::Tensor decode_jpeg(const Row& row, const std::string& bytes) {
  JpegReader reader;
  const auto check = [&](bool done) {
    if (!done)
      bad_row(row, "a damaged picture",
              "is not a complete JPEG file ({}); fetch it again or remove it", reader.errors.text);
  };
  check(reader.begin(bytes));
  at::Tensor pixels = empty_picture(row, reader.info.output_height, reader.info.output_width,
                                    reader.info.out_color_space == JCS_RGB ? 3 : 1);
  check(reader.read(pixels.data_ptr<std::uint8_t>()));
  return pixels;
}

}  // namespace

at::Tensor decode_picture(const Row& row, const std::string& bytes) {
  if (bytes.starts_with("\x89PNG")) return decode_png(row, bytes);
  if (bytes.starts_with("\xff\xd8\xff")) return decode_jpeg(row, bytes);
  bad_row(row, "not a picture",
          "is neither a PNG nor a JPEG file; exclude it with files = \"*.png\", or remove it");
}

}  // namespace attune
