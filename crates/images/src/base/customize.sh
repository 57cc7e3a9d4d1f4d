#!/bin/sh
# Finishes the base template. Runs on the host, in mmdebstrap's customize hook: $1 is the new root.
set -eu
root=$1

# The host's /dev/shm and devices are mounted beneath $root/dev while this runs: nothing here may
# delete in there, and no recursive removal may cross into another filesystem.

chroot "$root" groupadd --gid 1000 user
chroot "$root" useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash user
chroot "$root" usermod --append --groups sudo user
printf 'user ALL=(ALL:ALL) NOPASSWD: ALL\n' > "$root/etc/sudoers.d/user"
chmod 0440 "$root/etc/sudoers.d/user"

# Nothing of this machine: the system writes its own names and addresses into each sandbox.
printf 'sandbox\n' > "$root/etc/hostname"
printf '127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n' > "$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
printf 'LANG=C.UTF-8\n' > "$root/etc/default/locale"

# The options of this build are not those of the sandbox: proxies and passwords stay out.
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/apt/auth.conf
printf 'APT::Install-Recommends "false";\n' > "$root/etc/apt/apt.conf.d/90minimal"
for list in "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*; do
    if [ -f "$list" ]; then sed -i 's#://[^/@]*@#://#' "$list"; fi
done
# pip installs work as people expect in a machine of their own.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED

rm -rf --one-file-system "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/* \
    "$root"/var/log/* "$root"/usr/share/info/* "$root"/usr/share/gitweb \
    "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old \
    "$root"/usr/share/lintian "$root"/usr/share/bash-completion \
    "$root"/run/* "$root"/tmp/* "$root"/root/.cache
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial" "$root/run/lock"
