"""A simulator of selection: students of item-response theory instead of language models, whole runs in seconds.

    world.py      questions: what they ask for, how hard they are, which are flawed, what is known of them
    rollouts.py   answers of a student, served to a curriculum in rounds as `lilo_jax.training.collection` serves them
    student.py    the policy gradient of a student, and its optimiser
    run.py        a run: steps and evaluations

Every rule goes through its real `Curriculum`.  What is left out is listed in docs/simulator.md.
"""
