#!/usr/bin/env bash
# hydra-optuna-sweeper 1.3.0 runs unchanged on Optuna 5.0.0, but declares optuna<3. So `pip install hydra-optuna-sweeper` beside Optuna 5
# takes Optuna down to 2.10.1 (2022) without an error, and naming both versions cannot be resolved.
#
# Seen with hydra-core 1.3.2, hydra-optuna-sweeper 1.3.0, optuna 5.0.0, Python 3.11:
#   pip install --dry-run hydra-optuna-sweeper==1.3.0 optuna==5.0.0   ResolutionImpossible: depends on optuna<3.0.0 and >=2.10.0
#   pip install --dry-run hydra-optuna-sweeper==1.3.0                 Would install ... optuna-2.10.1
#   pip install --no-deps hydra-optuna-sweeper==1.3.0                 a search over interval(0,4) with four trials ends with "Best value"
# What follows for users: a model-based sweep in an environment that needs a current Optuna wants --no-deps, or another sweeper.
# Exits 0 while all three are so, 1 when one of them changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
pip() { env/bin/python -m pip --disable-pip-version-check "$@"; }
pip install --quiet hydra-core==1.3.2 optuna==5.0.0

changed=0
expect() { # expect NAME PATTERN FILE
    if grep -q "$2" "$3"; then echo "as seen: $1"; else echo "CHANGED: $1"; changed=1; tail -n 5 "$3"; fi
}

pip install --dry-run hydra-optuna-sweeper==1.3.0 optuna==5.0.0 >both.txt 2>&1 || true
expect "both versions cannot be resolved" "ResolutionImpossible" both.txt

pip install --dry-run hydra-optuna-sweeper==1.3.0 >alone.txt 2>&1 || true
expect "alone it takes Optuna 5.0.0 down to 2.10.1" "Would install.*optuna-2\.10\.1" alone.txt

pip install --quiet --no-deps hydra-optuna-sweeper==1.3.0
cat >app.py <<'PY'
import hydra


@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(cfg):
    return (float(cfg.x) - 2.0) ** 2


main()
PY
env/bin/python app.py -m hydra/sweeper=optuna hydra.sweeper.n_trials=4 '+x=interval(0,4)' >search.txt 2>&1 || true
expect "without its declared dependencies it searches with Optuna 5.0.0" "Best value: [0-9.]*" search.txt
exit "$changed"
