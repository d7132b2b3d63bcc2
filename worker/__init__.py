"""The workshop: answers the doorbell and runs one distillation per slot in a child process."""
