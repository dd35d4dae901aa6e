"""Makes the two small bundles that `run.sh` has answered on arm64: FOLDER/onnx and FOLDER/tflite.

python benchmarks/arm64/bundles.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from support.makers import bundles as bundle_maker
from support.makers.tflite_files import linear_tflite

from edge_contracts.manifest import Variant


def main() -> None:
    folder = Path(sys.argv[1])
    bundle_maker.make_bundle(folder / "onnx", name="linear-onnx")
    made = bundle_maker.make_bundle(folder / "tflite", name="linear-tflite")
    model = made.folder / "models" / "lite.tflite"
    model.write_bytes(linear_tflite(bundle_maker.WEIGHTS))
    lite = Variant(id="lite", file="models/lite.tflite", format="tflite", size=model.stat().st_size)
    for variant in made.manifest.variants:
        made.model_path(variant).unlink()
    bundle_maker.seal(made.folder, bundle_maker.fields_of(made) | {"variants": (lite,)})


if __name__ == "__main__":
    main()
