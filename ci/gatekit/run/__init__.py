"""One run of the gate: profile, stages, run folder, verdict; here or as Slurm jobs."""
