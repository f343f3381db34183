"""Models behind HTTP: `bert4x serve`. It needs FastAPI and uvicorn (the extra `serve`)."""
