"""Reference of MedSigLIP's resize: ``python tests/parity/make/tensorflow_resize.py``, where TensorFlow is installed.

The card of google/medsiglip-448 calls ``tf.image.resize(image, [448, 448], method="bilinear", antialias=False)`` and
casts to uint8. Run with TensorFlow 2.21.0 on a CPU, apart from the project's own environment; kept are the sha256 of
each whole picture and every sixteenth pixel.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

HERE = Path(__file__).parents[1]
kept, digests = {}, {}
for path in sorted((HERE / "images").glob("*.png")):
    if "_u1" in path.name or "_u12" in path.name:  # deeper than 8 bits
        continue
    picture = Image.open(path).convert("RGB")
    resized = tf.image.resize(images=picture, size=[448, 448], method="bilinear", antialias=False)
    pixels = resized.numpy().astype(np.uint8)
    digests[path.name] = hashlib.sha256(pixels.tobytes()).hexdigest()
    kept[path.stem] = pixels[::16, ::16]
said = json.dumps({"reference": f"TensorFlow {tf.__version__}", "sha256": digests})
np.savez_compressed(HERE / "expected" / "narrow" / "tensorflow_resize.npz", said=np.array(said), **kept)
