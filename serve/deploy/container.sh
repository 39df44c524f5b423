#!/bin/sh
# The steps of a container of `retr serve`, which a machine without containers can take as well:
#
#   container.sh install WHEELS [PREFIX]   install retr from a folder of wheels, with nothing from a network
#   container.sh start [OPTION]...         serve; further options are those of `retr serve`
#   container.sh health                    end with success if the server answers
#
# RETR_PREFIX is where retr is installed, RETR_HOME where the server keeps what it writes, RETR_URL where it is asked.
set -eu

prefix=${RETR_PREFIX:-/opt/retr}
home=${RETR_HOME:-/var/lib/retr}

install_wheels() {
    wheels=$1
    prefix=${2:-$prefix}
    [ -x "$prefix/bin/python" ] || python3 -m venv "$prefix"
    "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        --no-index --find-links "$wheels" "retr[cpu,dicom]"
    "$prefix/bin/retr" serve --help >/dev/null
}

start() {
    # the root file system may be read-only: all that is written goes below one folder
    export RETR_CACHE_DIR="${RETR_CACHE_DIR:-$home/cache}" RETR_STATE_DIR="${RETR_STATE_DIR:-$home/state}"
    export RETR_KEY_FILE="${RETR_KEY_FILE:-$home/hash.key}" HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
    if ! [ -w "${TMPDIR:-/tmp}" ]; then
        mkdir -p "$home/tmp"
        export TMPDIR="$home/tmp"
    fi
    # in the place of this shell, so that a signal reaches the server
    exec "$prefix/bin/retr" serve --host "${RETR_HOST:-0.0.0.0}" --token-file "$home/tokens" \
        --audit "$home/audit.jsonl" "$@"
}

health() {
    exec "$prefix/bin/python" - "${RETR_URL:-http://127.0.0.1:7860}/healthz" <<'END'
import ssl, sys, urllib.request as request

# this machine asks itself: no proxy, and no name for a certificate to hold
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
opener = request.build_opener(request.ProxyHandler({}), request.HTTPSHandler(context=context))
opener.open(sys.argv[1], timeout=5).read()
END
}

step=${1:-}
[ $# -eq 0 ] || shift
case $step in
    install) install_wheels "$@" ;;
    start) start "$@" ;;
    health) health ;;
    *) echo "usage: container.sh install WHEELS [PREFIX] | start [OPTION]... | health" >&2; exit 2 ;;
esac
