//! Several things that take a while, all at the same time: spinners for people at a terminal, and a
//! line for each on stdout, in order, as soon as it is there.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ui::Ui;

const TICK: Duration = Duration::from_millis(120);

/// Waits for all `works`, each with its title; `line` is what stdout is told of one that is done, if
/// anything.
pub(crate) async fn in_order<T>(
    ui: &Ui,
    works: impl IntoIterator<Item = (String, impl Future<Output = T>)>,
    line: impl Fn(&T) -> Option<String>,
) -> io::Result<Vec<T>> {
    let target =
        if ui.stderr_moves() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let screen = MultiProgress::with_draw_target(target);
    let mut bars = Vec::new();
    let mut waiting = FuturesOrdered::new();
    let line = &line;
    for (title, work) in works {
        let bar =
            screen.add(ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner()));
        bar.set_message(title);
        bars.push(bar.clone());
        waiting.push_back(async move {
            let done = work.await;
            bar.finish_with_message(line(&done).unwrap_or_default());
            (done, bar)
        });
    }
    let mut all = Vec::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            // Cancel safe, each arm: a stream of futures that are kept, and a timer.
            next = waiting.next() => {
                let Some((done, bar)) = next else { return Ok(all) };
                bar.finish_and_clear();
                if let Some(line) = line(&done) {
                    screen.suspend(|| ui.out(&line))?;
                }
                all.push(done);
            }
            _ = ticks.tick() => bars.iter().filter(|bar| !bar.is_finished()).for_each(ProgressBar::tick),
        }
    }
}
