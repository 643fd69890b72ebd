-- Oldest and newest first: for lists, and for what is deleted because it is old.

CREATE INDEX gateway_events_newest ON gateway_events (created_at, id);
CREATE INDEX subagent_runs_newest ON subagent_runs (created_at, id);
