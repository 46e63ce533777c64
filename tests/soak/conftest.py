# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

for folder in ("bench", "interop"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
