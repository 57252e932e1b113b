"""How unusual a session's factors are: a transparent baseline and two learned engines, all trained on earlier sessions."""
