"""Plays policies and judges them: episodes on given seeds, tournaments, statistics, selection of the winner."""
