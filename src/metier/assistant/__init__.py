"""The assistant around a model, without HTTP: safety, mood, tickets for people, feedback."""
