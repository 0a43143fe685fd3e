"""Small web pages for people, served to this machine alone: what a model can't answer itself."""
