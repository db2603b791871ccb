"""What our web pages share: the user study's and the report's."""
