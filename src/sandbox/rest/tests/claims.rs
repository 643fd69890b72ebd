//! A conditional PATCH is atomic: of many claimers one wins.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;

const ROUNDS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_claimers_one_wins_in_every_round() {
    let server = Arc::new(Server::new().await);
    let started_at = tokio::time::Instant::now();
    for round in 0..ROUNDS {
        let job = server.job(GATEWAY, TEAM).await;
        let target = format!(
            "gateway_jobs?id=eq.{job}&team_id=eq.{TEAM}&status=eq.queued&gateway_id=eq.{GATEWAY}"
        );
        let mut claimers = JoinSet::new();
        for claimer in 0..50 {
            let (server, target) = (Arc::clone(&server), target.clone());
            claimers.spawn(async move {
                let started = format!("2026-01-01T00:00:00.{claimer:03}Z");
                let body =
                    json!({"status": "running", "gateway_id": GATEWAY, "started_at": started});
                let answer = server.patch(&target, "return=representation", &body).await;
                assert_eq!(answer.status, 200);
                (claimer, answer.body.as_array().unwrap().first().cloned())
            });
        }
        let all = claimers.join_all().await;
        let won: Vec<_> =
            all.iter().filter_map(|(c, row)| row.as_ref().map(|row| (c, row))).collect();
        assert_eq!(won.len(), 1, "round {round}");
        let row = server.row("gateway_jobs", &job).await;
        assert_eq!(won[0].1, &row);
        let started: jiff::Timestamp = row["started_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(i64::from(*won[0].0), started.as_millisecond() % 1000);
    }
    #[expect(clippy::print_stdout, reason = "the figure")]
    let () =
        println!("{ROUNDS} rounds of 50 claimers, one winner each, in {:?}", started_at.elapsed());
}
