//! Training runs that resume to the same bytes: optimiser, EMA, rate schedules, checkpoints, observers.
