from django.apps import AppConfig


class TrainingApp(AppConfig):
    name = "training"
    verbose_name = "Training"

    def ready(self) -> None:
        from training import token_counts

        token_counts.declare_follow_up()
