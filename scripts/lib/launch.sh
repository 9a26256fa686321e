# SPDX-License-Identifier: GPL-2.0-only
#
# What scripts/{demo,test,bench} have in common: help without set-up, then the
# shared set-up step, then the Python program that does the work.

launch() {
    local program=$1 here arg last=
    local -a parts=()
    shift
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
    for arg in "$@"; do
        case $arg in
        -h | --help) [[ -x /usr/bin/python3 ]] && exec /usr/bin/python3 -B "$here/$program" --help ;;
        --packages) parts=(--packages) ;;
        esac
    done
    [[ $program != stressors.py ]] || parts=(--stressors)
    # the demo is for newcomers: nothing is to stop it that it does not need
    if [[ $program == demo.py ]]; then
        parts=(--demo)
        for arg in "$@"; do
            case $last$arg in
            --host) parts=(--build) ;;
            --kernel*/*) parts=(--own-kernel) ;;
            esac
            last=
            [[ $arg != --kernel ]] || last=$arg=
        done
    fi
    "$here/../setup" --quiet "${parts[@]}" >&2 || exit 1
    exec /usr/bin/python3 -B "$here/$program" "$@"
}
