"""Infrastructure shared by the methods. It names none of them and never imports Detectron2."""
