#!/usr/bin/env bash
# mediapipe 1.2.3: the pose landmarker needs a model that the package does not have, and the package's own way to make one cannot be imported.
# - The wheel holds no .tflite and no .task file. That of 0.10.21 had pose_detection.tflite and pose_landmark_full.tflite, for mp.solutions,
#   which is gone.
# - PoseLandmarker refuses those two, put into a .task file: "Input tensor has type float32: it requires specifying NormalizationOptions
#   metadata". What writes that metadata, mediapipe.tasks.python.metadata.metadata_writers, is in the wheel and raises ModuleNotFoundError:
#   it imports mediapipe.tasks.cc.metadata.python._pywrap_metadata_version, an extension module that is in no wheel of this version.
# With the metadata written by 0.10.21 (numpy below 2, in an environment of its own) 1.2.3 runs both files, beside numpy 2.4.6.
#
# Seen with Python 3.11 on Linux x86_64.
# What follows for users: a .task file has to be downloaded from Google's model page; one of your own is made with mediapipe 0.10.21.
# Exits 0 while both are so, 1 when one of them changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet mediapipe==1.2.3
cat >seen.py <<'PY'
import pathlib
import sys

import mediapipe
from mediapipe.tasks.python.vision import PoseLandmarker  # this one is there

models = [path.name for path in pathlib.Path(mediapipe.__file__).parent.rglob("*") if path.suffix in (".tflite", ".task", ".binarypb")]
print(f"models in the package: {len(models)}; solutions: {hasattr(mediapipe, 'solutions')}; {PoseLandmarker.__name__}")
try:
    from mediapipe.tasks.python.metadata.metadata_writers import metadata_writer
except ModuleNotFoundError as error:
    print(f"the metadata writer: {error}")
else:
    sys.exit(f"changed: {metadata_writer.__name__} can be imported")
sys.exit("changed: there are models" if models else 0)
PY
env/bin/python seen.py
