//! Limits that hold on every face. Each number is the largest value that is accepted.

use std::time::Duration;

/// Items on one page of a list.
pub const PAGE_ITEMS_MAX: usize = 100;
/// Metadata entries and environment variables of one sandbox.
pub const MAP_ENTRIES_MAX: usize = 256;
/// Bytes of one metadata or environment key.
pub const MAP_KEY_BYTES_MAX: usize = 256;
/// Bytes of one metadata value.
pub const METADATA_VALUE_BYTES_MAX: usize = 4096;
/// Bytes of one environment value: the kernel's limit for one string is 128 KiB.
pub const ENV_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the name that an application gives a project or a user.
pub const FOREIGN_ID_BYTES_MAX: usize = 256;
/// A JSON body on a control route.
pub const JSON_BODY_BYTES_MAX: usize = 1024 * 1024;
/// The life of a sandbox between two renewals of its deadline.
pub const SANDBOX_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600 * 30);
/// vCPUs of one sandbox.
pub const CPU_COUNT_MAX: u32 = 64;
/// Memory of one sandbox.
pub const MEMORY_BYTES_MAX: u64 = 256 << 30;
/// The smallest volume: file systems need a few pages for themselves.
pub const VOLUME_BYTES_MIN: u64 = 1 << 20;
/// Processes and threads in one sandbox, unless its template says otherwise.
pub const PIDS_DEFAULT: u32 = 4096;
/// Bytes of a template name or alias.
pub const TEMPLATE_NAME_BYTES_MAX: usize = 128;
/// Steps of one template build.
pub const BUILD_STEPS_MAX: usize = 1000;
