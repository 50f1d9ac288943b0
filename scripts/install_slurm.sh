#!/usr/bin/env bash
# Slurm out of Debian's packages, for the tests of cluster=slurm and for trying it on one machine (docs/how-to/slurm.md):
# controller, node daemon, client commands, plugins, MUNGE, PMIx (Slurm's plugin for --mpi=pmix opens libpmix.so,
# which is in libpmix-dev), and the accounting daemon with a MariaDB server, 75 MB. No service is started; the tests
# start daemons of their own, with their own configuration, and end them. Does nothing where all is there.
#
#   scripts/install_slurm.sh
#
# Exit 0: installed, or "skipped: ..." says what is missing and why; with CI=true that is exit 1.
set -euo pipefail
PACKAGES=(slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins libpmix-dev slurmdbd mariadb-server-core)
PROGRAMS=(slurmctld slurmd slurmstepd sbatch srun munged slurmdbd mariadbd)
PATH=$PATH:/usr/sbin:/sbin
POLICY=/usr/sbin/policy-rc.d

skip() {
  echo "skipped: $1; the tests of cluster=slurm cannot run here" >&2
  [[ ${CI:-} == true ]] && exit 1
  exit 0
}

missing() {
  local program
  for program in "${PROGRAMS[@]}"; do
    command -v "$program" >/dev/null || echo "$program"
  done
  command -v dpkg-query >/dev/null || return 0
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' libpmix-dev 2>&1) == installed ]] || echo libpmix-dev
}

# install_packages: with Debian's own way of saying that no service is to be started. Source: invoke-rc.d(8).
install_packages() {
  if [[ ! -e $POLICY ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
    trap 'rm -f "$POLICY"' EXIT
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${PACKAGES[@]}" >/dev/null
}

found=$(missing)
[[ -z $found ]] && exit 0
lacking="no ${found//$'\n'/, }"
command -v apt-get >/dev/null || skip "$lacking, and no apt-get to install ${PACKAGES[*]} with"
((EUID == 0)) || skip "$lacking, and only root may run apt-get install ${PACKAGES[*]}"
echo "installing ${PACKAGES[*]}"
if ! install_packages 2>/dev/null; then
  apt-get update -qq >/dev/null || skip "$lacking, and apt-get update failed"
  install_packages || skip "$lacking, and apt-get could not install ${PACKAGES[*]}"
fi
found=$(missing)
[[ -z $found ]] || skip "the packages ${PACKAGES[*]} brought no ${found//$'\n'/, }"
