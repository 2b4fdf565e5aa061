#!/usr/bin/env bash
# Make one arm of the gate inside the image: arm.sh ARM SGLANG AITER AITER_SERIES.
# ARM is baseline or patched. AITER_SERIES is carried, or image to leave AITER as it is.
set -euo pipefail

arm=$1 sglang=$2 aiter=$3 aiter_series=$4
home=$(cd "$(dirname "$0")/../.." && pwd)
trees=("$sglang")
case $aiter_series in
  carried) trees+=("$aiter") ;;
  image) echo "AITER is not changed: AITER_SERIES is image" ;;
  *) echo "AITER_SERIES must be carried or image, not $aiter_series" >&2; exit 2 ;;
esac
# In the trees' parent folder, Python would import a clone as the package itself.
cd /

# Python must import the packages from the changed trees. With other import paths, the
# image would run without the series, and nothing would show it.
expect_import() {
  local found
  found=$(python3 - "$1" <<'END'
import importlib.util, os, sys
spec = importlib.util.find_spec(sys.argv[1])
places = list(spec.submodule_search_locations or ()) if spec else []
print(os.path.realpath(places[0]) if places else "nowhere")
END
  )
  if [ "$found" != "$(realpath "$2")" ]; then
    echo "Python imports $1 from $found, expected $2: name it with --build-arg" >&2
    exit 1
  fi
}
expect_import sglang "$sglang/python/sglang"
expect_import aiter "$aiter/aiter"

verb() {
  local name=$1
  shift
  PYTHONPATH="$home/vendor${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 \
    python3 "$home/scripts/$name.py" "$@"
}

case $arm in
  baseline)
    for tree in "${trees[@]}"; do
      code=0
      verb apply --status "$tree" || code=$?
      if [ "$code" -ne 1 ]; then
        echo "$tree is not a baseline: apply --status must exit with 1 (pristine)" >&2
        exit 1
      fi
    done
    ;;
  patched)
    verb apply "${trees[@]}"
    verb verify "${trees[@]}"
    # A build has no GPU, so some conditions cannot hold: the doctor's report is kept, but
    # exit code 1 is accepted. A higher code is a failure of the doctor.
    code=0
    verb doctor >"$home/doctor.txt" 2>&1 || code=$?
    cat "$home/doctor.txt"
    if [ "$code" -gt 1 ]; then
      exit "$code"
    fi
    ;;
  *)
    echo "ARM must be baseline or patched, not $arm" >&2
    exit 2
    ;;
esac
