#!/bin/sh
# Quickstart: write to a durable log, swap its engine, read everything back.
set -eu
export VIRTUALLOG_URL="${1:-file:quickstart-data/fruit}"

echo apples | virtuallog append >/dev/null
printf 'pears\nplums\n' | virtuallog append >/dev/null
virtuallog reconfigure --to local >/dev/null # another engine for the same log
echo quinces | virtuallog append >/dev/null

virtuallog read
virtuallog check-tail --text
