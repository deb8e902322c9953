"""What conf/experiment/{style,character,concept}.yaml are chosen by."""
