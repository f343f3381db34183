"""A host of those that tests/test_devices.py starts: on JAX, it finds the others by TCP, if it is told of any.

It trains a model of a folder, a copy on each host, and decodes with it; prints losses and ids as JSON.
"""

import json
import os
import sys
from pathlib import Path

import keras

if "KERAS_DISTRIBUTION_PROCESS_ID" in os.environ:
    keras.distribution.initialize()  # before anything asks for devices

import jax
from eight_devices import IDS, updates

import bert4x

if __name__ == "__main__":
    source, distribution = Path(sys.argv[1]), bert4x.distribution()
    found = {"hosts": jax.process_count(), "copies": distribution.data}
    with distribution.scope():
        found["losses"], _ = updates(source)
        found["ids"] = bert4x.load(source).generate_ids(IDS[:2], max_new_tokens=5).tolist()
    print(json.dumps(found))
