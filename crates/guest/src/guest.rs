//! The state of one guest. Single-threaded: everything is behind `Rc`.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use tokio::{sync::Notify, time::Instant};
use woodfrog_guest_proto::{Configure, Configured, ErrorCode, Hello, VERSION};

use crate::{
    error::{OpResult, fail, invalid, system},
    process::{Process, Table},
    system::CpuSample,
    users::{Acting, Names, User},
};

pub(crate) struct Guest {
    boot_id: String,
    started: Instant,
    etc: PathBuf,
    pub(crate) acting: Acting,
    pub(crate) config: RefCell<Configured>,
    pub(crate) processes: RefCell<Table>,
    pub(crate) cpu: Cell<Option<CpuSample>>,
    /// The host wants the guest to end.
    pub(crate) shutdown: Notify,
    /// A task that forgets ended processes in time is under way.
    janitor: Cell<bool>,
    this: std::rc::Weak<Self>,
}

impl Guest {
    pub(crate) fn new(etc: PathBuf, acting: Acting) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            boot_id: random_id(),
            started: Instant::now(),
            etc,
            acting,
            config: RefCell::new(Configured {
                default_user: "root".to_owned(),
                ..Configured::default()
            }),
            processes: RefCell::default(),
            cpu: Cell::new(None),
            shutdown: Notify::new(),
            janitor: Cell::new(false),
            this: this.clone(),
        })
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: VERSION & 0x0f,
            boot_id: self.boot_id.clone(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            pid: std::process::id(),
        }
    }

    /// Applies what is set. Nothing is applied when something is refused.
    pub(crate) fn configure(&self, change: Configure) -> OpResult<Configured> {
        if let Some(name) = &change.default_user {
            self.names().user(name)?;
        }
        if let Some(env) = &change.env {
            let bad = |text: &String| text.contains('\0');
            if env
                .iter()
                .any(|(k, v)| k.is_empty() || k.contains('=') || bad(k) || bad(v))
            {
                return Err(invalid("an environment entry is malformed"));
            }
        }
        if let Some(name) = &change.hostname {
            set_hostname(name)?;
        }
        for (path, content) in &change.files {
            if let Err(error) = mark(Path::new(path), content) {
                eprintln!("{path}: {error}");
            }
        }
        if let Some(trust) = &change.trust {
            for error in crate::trust::apply(Path::new("/"), trust) {
                eprintln!("certificates: {error}");
            }
        }
        let mut config = self.config.borrow_mut();
        if let Some(user) = change.default_user {
            config.default_user = user;
        }
        if let Some(dir) = change.default_workdir {
            config.default_workdir = Some(dir).filter(|d| !d.is_empty());
        }
        if let Some(env) = change.env {
            config.env = env;
        }
        Ok(config.clone())
    }

    pub(crate) fn names(&self) -> Names {
        Names::read(&self.etc)
    }

    /// Names for another thread.
    pub(crate) fn shared_names(&self) -> Arc<Names> {
        Arc::new(self.names())
    }

    /// The user called so, or the default one.
    pub(crate) fn user(&self, name: Option<&str>) -> OpResult<User> {
        let default = self.config.borrow().default_user.clone();
        self.names()
            .user(name.filter(|n| !n.is_empty()).unwrap_or(&default))
    }

    pub(crate) fn process_ended(&self, process: &Process) {
        self.processes.borrow_mut().ended(process);
        if let Some(this) = self.this.upgrade().filter(|_| !self.janitor.replace(true)) {
            tokio::task::spawn_local(this.clean());
        }
    }

    async fn clean(self: Rc<Self>) {
        loop {
            let due = self.processes.borrow_mut().prune();
            let Some(due) = due else { break };
            tokio::time::sleep_until(due).await;
        }
        self.janitor.set(false);
    }
}

fn random_id() -> String {
    let mut bytes = [0u8; 16];
    // Without entropy the id falls back to zeros; it identifies, it protects nothing.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a small file, unless it is there with this content: a full disk must not matter to a
/// sandbox that is told the same again.
fn mark(path: &Path, content: &str) -> std::io::Result<()> {
    if !path.is_absolute() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    crate::trust::make_way(path)?;
    if fs::read(path).is_ok_and(|now| now == content.as_bytes()) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, content)
}

fn set_hostname(name: &str) -> OpResult<()> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(legal) {
        return Err(invalid("hostname is malformed"));
    }
    if std::process::id() != 1 {
        return Err(fail(
            ErrorCode::Unsupported,
            "only PID 1 sets the host name",
        ));
    }
    // Who restored this sandbox under another name may have set it already, and may what this
    // process may not.
    let path = "/proc/sys/kernel/hostname";
    if std::fs::read(path).is_ok_and(|now| now.trim_ascii_end() == name.as_bytes()) {
        return Ok(());
    }
    // gVisor shows the name there and takes none, but lets us say it.
    std::fs::write(path, name)
        .or_else(|e| rustix::system::sethostname(name.as_bytes()).map_err(|_| e))
        .map_err(|e| system("hostname", e))
}
