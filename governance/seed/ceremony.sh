#!/bin/sh
# The ceremony that hands an installation over to its first council (docs/guides/council.md), on the operator's machine.
#
#   ceremony.sh FOLDER EFFECTIVE_FROM ORDINARY HIGHER
#
# FOLDER holds one NAME.public.json for each member, as its own `settlement keys new --json` printed it. The first run writes
# FOLDER/council.json for the members to look at and sign on their own machines. When all their NAME.signature files are in
# FOLDER too, the next run founds the council. Every run says what is missing; nothing is done twice.
set -eu
[ $# -eq 4 ] || { sed -n '2,8p' "$0"; exit 64; }
folder=$1 effective_from=$2 ordinary=$3 higher=$4
missing=''
set --
for file in "$folder"/*.public.json; do
    [ -e "$file" ] || { echo "no NAME.public.json in $folder" >&2; exit 1; }
    name=$(basename "$file" .public.json)
    set -- "$@" --member "$name=$file"
    [ -e "$folder/$name.signature" ] || missing="$missing $name"
done
if [ ! -e "$folder/council.json" ]; then
    settlement council draft "$@" --ordinary "$ordinary" --higher "$higher" --effective-from "$effective_from" \
        --out "$folder/council.json"
    echo "wrote $folder/council.json: every member checks its key in it and signs, with: settlement council sign"
    exit 0
fi
[ -z "$missing" ] || { echo "still to sign:$missing" >&2; exit 1; }
set --
for file in "$folder"/*.signature; do
    set -- "$@" --signature "$file"
done
settlement council found "$folder/council.json" "$@"
