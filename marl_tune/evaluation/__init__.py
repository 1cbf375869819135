"""Playing a policy and judging it: episodes on given seeds, tournaments, statistics, selection of the winner."""
