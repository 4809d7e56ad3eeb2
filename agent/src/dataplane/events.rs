//! The program's rare events (aya-log), into the agent's log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::{io::Interest, io::unix::AsyncFd, task::JoinHandle};

/// Stops forwarding when dropped.
#[derive(Debug)]
pub struct Forwarder(JoinHandle<()>);

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts forwarding, within a tokio runtime. `None`: outside of one, or there is nothing to read from.
pub fn forward(ebpf: &mut Ebpf) -> Option<Forwarder> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let logger = EbpfLogger::init_with_logger(ebpf, ToTracing)
        .inspect_err(|error| tracing::warn!(%error, "the program's log cannot be read"))
        .ok()?;
    // SAFETY: the logger owns its ring buffer's descriptor and never changes it.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .inspect_err(|error| tracing::warn!(%error, "the program's log cannot be waited for"))
        .ok()?;
    Some(Forwarder(runtime.spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    })))
}

/// aya-log writes to the `log` crate's interface.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: "siteswap::xdp", "{text}"),
            log::Level::Warn => tracing::warn!(target: "siteswap::xdp", "{text}"),
            log::Level::Info => tracing::info!(target: "siteswap::xdp", "{text}"),
            log::Level::Debug => tracing::debug!(target: "siteswap::xdp", "{text}"),
            log::Level::Trace => tracing::trace!(target: "siteswap::xdp", "{text}"),
        }
    }

    fn flush(&self) {}
}
