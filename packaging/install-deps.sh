#!/bin/sh
# Install the Debian packages of debian-packages.txt that are missing. Asks nothing; does nothing when all are there.
set -eu

list=$(dirname "$0")/debian-packages.txt
missing=
while read -r package _; do
    case $package in '' | '#'*) continue ;; esac
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=absent
    [ "$status" = installed ] || missing="$missing $package"
done <"$list"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then sudo=; else sudo=sudo; fi
echo "installing:$missing"
# $sudo and $missing are lists of words.
# shellcheck disable=SC2086
{
    $sudo apt-get -q update
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold install $missing
}
