"""How well a student's features serve another data set: a linear probe on its frozen net."""
