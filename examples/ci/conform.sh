#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the conformance kit against an implementation and leave reports behind.
#
#   conform.sh CONN [OUTPUT FOLDER]        for example: conform.sh cmd:./my-vmm reports
#
# Environment: HV_PROFILE (a profile), HV_ROLE (host or guest), HV_EXPECT (a file of known failures).
# Exit status: that of `hvabi conform`, 0 only if nothing unexpected was found.
set -eu

if [ $# -lt 1 ]; then
	echo "usage: $0 CONN [OUTPUT FOLDER]" >&2
	exit 2
fi
conn=$1
out=${2:-reports}
mkdir -p "$out"

set -- --iut "$conn" --junit "$out/conform.xml" --html "$out/conform.html" --json "$out/conform.json"
[ -z "${HV_ROLE:-}" ] || set -- "$@" --role "$HV_ROLE"
[ -z "${HV_PROFILE:-}" ] || set -- "$@" --profile "$HV_PROFILE"
[ -z "${HV_EXPECT:-}" ] || set -- "$@" --expect "$HV_EXPECT"

exec hvabi conform "$@"
