//! Loop devices.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: u64 = 0x4c82;
const LOOP_CONFIGURE: u64 = 0x4c0a;
/// Detach at the last close.
const AUTOCLEAR: u32 = 4;
/// Another program can take the free device before us.
const ATTEMPTS: usize = 16;

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// device, inode, rdevice, offset, size limit
    places: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// A device with a file behind it, which goes when this is dropped and it is not mounted.
pub(super) struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

pub(super) fn attach(image: &Path) -> io::Result<LoopDevice> {
    let image = File::options().read(true).write(true).open(image)?;
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    let config = LoopConfig {
        fd: image.as_raw_fd() as u32,
        block_size: 0,
        places: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: AUTOCLEAR,
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    for _ in 0..ATTEMPTS {
        // SAFETY: no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(true).open(&path)?;
        // SAFETY: reads a struct of the kernel's layout.
        let rc = unsafe {
            libc::ioctl(
                device.as_raw_fd(),
                LOOP_CONFIGURE as _,
                std::ptr::from_ref(&config),
            )
        };
        if rc == 0 {
            return Ok(LoopDevice {
                path,
                _open: device,
            });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "no free loop device",
    ))
}
