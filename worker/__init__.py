"""The worker: claims queued jobs and runs one distillation per slot in a child process."""
