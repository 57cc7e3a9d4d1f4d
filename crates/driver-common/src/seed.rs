//! Files that are different in every sandbox, put into its writable layer before it is mounted.

use std::fs;
use std::io;
use std::path::Path;

/// Makes `u/` and `w/` in a sandbox's folder and seeds `u/` with the host name's files.
///
/// `/etc/hosts` has the host name, without which `sudo` complains at every call.
pub fn seed(dir: &Path, hostname: &str, name_server: &str) -> io::Result<()> {
    fs::create_dir(dir.join("u"))?;
    fs::create_dir(dir.join("w"))?;
    let etc = dir.join("u/etc");
    fs::create_dir(&etc)?;
    fs::write(etc.join("hostname"), format!("{hostname}\n"))?;
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    fs::write(etc.join("hosts"), hosts)?;
    fs::write(
        etc.join("resolv.conf"),
        format!("nameserver {name_server}\n"),
    )
}
