"""python silero.py MODELS LIBRARIES: a minute of speech through the compiled voice-activity detectors, state fed back."""
import json
import sys
import wave

import dlc
import numpy as np

folder, libraries = sys.argv[1:]
with open(folder + "/expected.json") as f:
    expected = json.load(f)
chunk, context, rate = expected["chunk"], expected["context"], expected["sample_rate"]
with wave.open(folder + "/speech_8k.wav") as w:
    speech = np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float32) / 32768
for name, probabilities in expected["probability"].items():
    model = dlc.load(f"{libraries}/{name.removesuffix('.onnx')}.so", threads=1)
    state, last, worst = np.zeros((2, 1, 128), np.float32), np.zeros(context, np.float32), 0.0
    for i, want in enumerate(probabilities):
        part = speech[i * chunk:(i + 1) * chunk]
        out = model.run({"input": np.concatenate([last, part])[None], "state": state, "sr": np.array(rate, np.int64)})
        state, last = out["stateN"], part[-context:]
        worst = max(worst, abs(float(out["output"].item()) - want))
    print(f"{name}: {len(probabilities)} chunks, largest difference {worst:.1e}")
    if not worst < 1e-3:
        sys.exit(1)
