"""What one target is sent that speaks the Messages API itself."""
