//! Runtimes for commands that need one.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use super::failure::Failure;

/// Jobs wait for children and for the network: a few threads serve any number of cores.
const MOST_THREADS: usize = 4;

/// Files are written and locked on threads of their own. Few of them: each keeps an arena of the
/// allocator, and none waits for long.
const MOST_BLOCKING_THREADS: usize = 16;

/// Runs a few calls on this thread.
pub(crate) fn short<F: Future>(work: F) -> Result<F::Output, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| refused(&error))?.block_on(work))
}

/// A runtime for a gateway or a server.
pub(crate) fn long() -> Result<Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(cores.min(MOST_THREADS))
        .max_blocking_threads(MOST_BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| refused(&error))
}

fn refused(error: &std::io::Error) -> Failure {
    Failure::new("could not start the runtime")
        .hint("the system refuses threads or file descriptors: see `ulimit -a`")
        .cause(error.to_string())
}
