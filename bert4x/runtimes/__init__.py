"""Exported models opened again: by ONNX Runtime, OpenVINO, or TensorFlow alone, without Keras."""
