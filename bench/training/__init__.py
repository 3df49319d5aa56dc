"""The parts of a training step that a recipe's `train` chooses: its rate, its optimiser, what is not finite."""
