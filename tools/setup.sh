#!/usr/bin/env bash
# Makes .venv with everything that training, certification and the tests need. Called by `make setup`.
#
# - A second run costs a second: a stamp names the state that was reached.
# - An interrupted run leaves no stamp; the next one starts .venv afresh (pip's cache makes it short).
# - With an NVIDIA GPU torch is the CUDA build, else the CPU build that pip finds for this version.
# - FFCV is compiled against Debian's OpenCV and libjpeg-turbo. As root they are installed; otherwise
#   the rest is set up, what is missing is said in one sentence, and the `memory` backend is used.
set -eu
cd "$(dirname "$0")/.."
TORCH=2.13.0 FFCV=1.0.2 DEEPSPEED=0.19.8
DEBIAN_PACKAGES="libopencv-dev libturbojpeg0-dev pkg-config g++"
VENV=.venv STAMP=.venv/.certline-ready LOG=build/setup.log
PYTHON=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*"; }
fail() { say "$* (see $LOG)"; tail -n 15 "$LOG" >&2; exit 1; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "Python 3.11 or newer is needed, $PYTHON is $("$PYTHON" -V 2>&1): set PYTHON=/path/to/python3.11"; exit 1; }

have_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }
have_libraries() {
  command -v pkg-config >/dev/null 2>&1 && command -v g++ >/dev/null 2>&1 &&
    pkg-config --exists opencv4 libturbojpeg; }
can_install_libraries() {
  [ "${CERTLINE_NO_APT:-}" = "" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

have_gpu && build=cuda || build=cpu
have_libraries && libraries=yes || libraries=no
state=$(cat requirements.lock pyproject.toml tools/setup.sh | sha256sum | cut -c1-16)-$build
if [ -e "$STAMP" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
  # `without-ffcv` is taken up again as soon as the libraries can be had.
  case $(cat "$STAMP") in
    "$state-with-ffcv") exit 0 ;;
    "$state-without-ffcv") [ $libraries = yes ] || can_install_libraries || exit 0 ;;
  esac
fi

mkdir -p build
if [ ! -e "$STAMP" ] && [ -e "$VENV" ]; then say "an earlier set-up was interrupted: starting afresh"; fi
rm -rf "$VENV"

ffcv=with-ffcv
if [ $libraries = no ]; then
  if can_install_libraries; then
    say "installing Debian packages: $DEBIAN_PACKAGES"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        $DEBIAN_PACKAGES; } >"$LOG" 2>&1 || ffcv=without-ffcv
    have_libraries || ffcv=without-ffcv
  else
    ffcv=without-ffcv
  fi
fi

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@" >"$LOG" 2>&1; }
say "installing into $VENV (minutes the first time)"
"$PYTHON" -m venv "$VENV" >"$LOG" 2>&1 || fail "could not make $VENV"
pip install "pip>=25" "setuptools>=77,<82" "wheel>=0.45" || fail "could not install pip and setuptools"
if [ $build = cuda ]; then
  pip install "torch==$TORCH,!=$TORCH+cpu" || fail "could not install torch $TORCH (CUDA)"
else
  pip install "torch==$TORCH+cpu" || pip install "torch==$TORCH" || fail "could not install torch $TORCH"
fi
pip install --no-deps -r requirements.lock || fail "could not install requirements.lock"
pip install --no-deps --no-build-isolation "deepspeed==$DEEPSPEED" || fail "could not install DeepSpeed"
if [ $ffcv = with-ffcv ]; then
  pip install --no-deps --no-build-isolation "ffcv==$FFCV" || ffcv=without-ffcv
fi
pip install --no-deps --no-build-isolation -e . || fail "could not install certline"
[ $ffcv = with-ffcv ] || say "FFCV is not installed, so data is read by the memory backend, which reads no JPEG" \
  ".beton files: as root run 'apt-get install $DEBIAN_PACKAGES', then 'make setup' again."
printf '%s' "$state-$ffcv" >"$STAMP"
say "ready: torch $TORCH ($build), $ffcv"
