"""What is searched and what decides a trial: studies, recipes, their search space."""
