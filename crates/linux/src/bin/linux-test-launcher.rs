//! The launcher alone, for this crate's tests.

fn main() -> std::io::Result<()> {
    let socket = woodfrog_linux::launcher::adopt_stdin()?;
    woodfrog_linux::launcher::launcher_main(socket)
}
