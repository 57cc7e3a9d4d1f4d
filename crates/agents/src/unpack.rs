//! Bringing an agent from the host's store into a machine.

use std::io::{self, Write};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use woodfrog_guest_client::GuestError;
use woodfrog_guest_client::proto::{ProcessRef, StdinMode};
use woodfrog_types::Fault;

use crate::host_store::Stored;
use crate::install::{Fill, failed, outcome};
use crate::machine::Machine;
use crate::run::{collect, fault};

/// Bytes of the archive sent at once, and how many pieces wait.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

impl Machine {
    /// Sends the stored agent as one archive to a program of the machine that puts it in place.
    pub(crate) async fn unpack(&self, stored: &Stored, timeout: Duration) -> Result<(), Fault> {
        let mut request =
            self.installer(stored.id, &stored.version, Fill::Archive, &[], timeout)?;
        request.stdin = StdinMode::Open;
        let stream = self.client.start(request).await.map_err(fault)?;
        let process = ProcessRef::Id(stream.started().id);
        let (sender, receiver) = channel(WAITING);
        let source = stored.clone();
        let archive = tokio::task::spawn_blocking(move || {
            source.archive(io::BufWriter::with_capacity(PIECE, Pieces(sender)))
        });
        let sent = self.send(process, receiver).await;
        let archived = archive.await.map_err(Fault::internal)?;
        // A program that ended early says why better than a write that failed.
        let ran = collect(stream).await?;
        outcome(stored.id, &ran, timeout)?;
        sent.map_err(fault)?;
        archived.map_err(|error| failed(stored.id, "reading the host's store").because(error))
    }

    async fn send(
        &self,
        process: ProcessRef,
        mut pieces: Receiver<Vec<u8>>,
    ) -> Result<(), GuestError> {
        let mut writer = self.client.open_stdin(process.clone(), None).await?;
        while let Some(piece) = pieces.recv().await {
            writer.write(&piece).await?;
        }
        writer.finish().await?;
        self.client.close_stdin(process).await
    }
}

/// Hands on what is written; fails when nobody takes it any more.
struct Pieces(Sender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(bytes.to_vec());
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
