"""The release engineer's side: keys, the signed repository, releases, depots, rollouts, the telemetry store."""
