"""Models as files that run without Keras: ONNX, OpenVINO, SavedModel."""
