"""The entrance from the shell: a module for each command, imported when that is called."""
